"""Tasks as declarations: what a row is, how it is asked, which answers there are, how it is scored."""
