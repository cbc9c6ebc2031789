"""Commands that work on a run or on the collection, whatever the model."""
