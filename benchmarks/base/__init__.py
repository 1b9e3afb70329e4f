"""What every wing stands on: a run as data, the store of results, random streams, where a run was made."""
