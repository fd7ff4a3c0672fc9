"""Rule convert: images of any format become frames and label maps on one grid."""
