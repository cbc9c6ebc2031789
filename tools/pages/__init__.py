"""The pages of tools/demo.py: what a visitor enters, and the pictures that answer it.

    kinds      which page a run gets
    drawing    models that draw from noise, labels, codes or sentences
    painting   models that translate pictures, or paint drawings and label maps
    networks   the trained networks of a run; pictures as a page shows them
    reading    what a visitor enters, checked, as arrays
    worker     one thread for all networks
    layout     the pages themselves; the only module that needs gradio
    canvas     a canvas for a mouse or a finger (canvas.js, canvas.css, canvas.html)

A model has methods that take what the fields of a page hold, and return pictures. It
raises a UserError, which the page shows, for what cannot be drawn.
"""
