"""What turns images into vectors: trained networks, and a search for a z of G."""
