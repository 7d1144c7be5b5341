"""Files of arrays by name that other frameworks write, read without these frameworks."""
