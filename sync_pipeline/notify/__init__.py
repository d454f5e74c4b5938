"""The wall towards people: everything that is sent to anybody but Salesforce."""
