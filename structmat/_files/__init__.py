"""What files are made of: everything below operators that reads or writes them.

- `atomic`: `atomic_write` and `check_output`, for files that appear complete or not at all
- `safetensors`: the file format, read piece by piece and written as bytes
- `folders`: the files of a folder
- `kinds`: which kind of file a path leads to
- `wrappers`: names of modules without what wrapping classes add
- `text`: names from outside, safe for terminals, figures and file systems
- `tables`: rows as CSV, as JSON, as a data frame, and in a file by its suffix
"""
