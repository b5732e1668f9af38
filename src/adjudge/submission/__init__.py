"""Write and check the files that the sites of GLUE and SuperGLUE take as a submission."""
