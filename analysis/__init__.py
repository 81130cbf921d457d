"""Journals to tables: metrics, idle accounts, comparison, pictures, timeline export.

A run is collected by `analysis.recorder.RunRecorder`, live or from a journal; everything else
reads the recorder. Simulated and real runs are not told apart. Heavy packages (pandas, pyarrow,
matplotlib, rich) are imported only by the functions that use them.
"""
