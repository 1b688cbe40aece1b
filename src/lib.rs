//! Carillon: tells every connected CMS editor, at once and reliably, that something changed.
