"""What turns images into vectors: networks with trained features, and a search for z."""
