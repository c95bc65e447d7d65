"""How the runs of a sweep are started: slots, processes, launchers of other packages."""
