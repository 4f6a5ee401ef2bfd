"""Tables: a description (data) folded over records into rows, written as Markdown and CSV. Imports no torch."""
