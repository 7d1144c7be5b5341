"""Every reader of files that nobody should trust, fed with damaged ones: see README.md."""
