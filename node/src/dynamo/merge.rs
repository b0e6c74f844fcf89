//! What several replicas have in a range, made one.
