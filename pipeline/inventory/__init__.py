"""What is there of a data set, module by module one source (findings.py says what each offers); for `das doctor`."""
