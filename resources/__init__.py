"""What a RIS knows about each resource: one module a resource, with its rules, lifecycle and reactions."""
