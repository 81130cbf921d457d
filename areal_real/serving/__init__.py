"""The inference side of the real back end: SGLang servers, each a process behind HTTP."""
