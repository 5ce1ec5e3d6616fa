"""Updates over the air: what turns one model file into the next, signed, and applied without losing the old one."""
