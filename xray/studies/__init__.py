"""What the experiments measure and draw: for each script a module of the same name.

A module's functions take a model and arrays, return numbers (arrays or an `xarray.Dataset`) and
figures, and print nothing; the script says what is asked and how to read the answer.
"""
