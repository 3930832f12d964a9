"""Where judged query–item pairs come from: one file per kind of source, each with a `read`."""
