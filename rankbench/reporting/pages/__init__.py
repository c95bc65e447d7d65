"""The HTML of reports: the page of a study, and the index of the studies of a results folder."""
