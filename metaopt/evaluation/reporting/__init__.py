"""Everything that turns the tables of an evaluation into something to look at: figures, sentences, Markdown and HTML."""
