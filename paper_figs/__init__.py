"""One module per published table or figure: ``python -m paper_figs.NAME`` makes it again."""
