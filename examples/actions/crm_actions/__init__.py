"""Actions of a CRM."""
