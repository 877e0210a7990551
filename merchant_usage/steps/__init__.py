"""What joins the source and the sink: scan, store, verify, and the rest."""
