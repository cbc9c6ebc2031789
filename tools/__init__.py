"""Commands that work on a run or on the whole collection.

explore.py, evaluate.py, describe.py, landscape.py, log_likelihood.py, twin.py,
benchmark.py, doctor.py and convert_weights.py are commands; --help describes each one.
`judges` and `features` hold what evaluate.py measures with, `twins` the scripts'
training steps in PyTorch.
"""
