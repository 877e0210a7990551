"""What joins the source and the sink: store, verify, and the rest."""
