"""The parts of a detector, under the names that conf/model/ gives them."""
