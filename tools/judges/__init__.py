"""What tools/evaluate.py measures with: sets of images, figures, and tests of a task.

image_sets, metrics         the images to compare, and distances between them
digit_classifier            reads digits, and gives their features
face_classifier             reads the attributes of the built-in faces
the others                  measure whether a model does its built-in task
"""
