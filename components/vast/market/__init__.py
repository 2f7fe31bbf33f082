"""The market of offers: a query, what is asked for, what each offer costs, its words."""
