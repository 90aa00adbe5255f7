"""Files of SQLite that all processes of one machine share, whatever is kept in them."""
