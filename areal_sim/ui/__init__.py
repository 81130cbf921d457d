"""The page of ``areal-sim ui``: planning and what-ifs in the browser.

What it computes is in `form`, `start`, `tweak` and `look`, which know nothing of Streamlit; what it
shows is in `page` and the modules that import Streamlit. Only ``areal-sim ui`` loads it.
"""
