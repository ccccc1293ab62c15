"""What files are made of: everything below operators that reads or writes them.

- `atomic`: `atomic_write` and `check_output`, for every file that structmat writes
- `safetensors`: the file format; the only file of the package's own readers and writers that imports safetensors
- `folders`: the files of a folder
- `kinds`: which kind of file a path leads to
- `wrappers`: names of modules without what wrapping classes add
- `text`: names from outside, safe for terminals, figures and file systems
- `tables`: rows as CSV, as JSON, as a data frame, and in a file by its suffix
"""
