output "url" {
  description = "Where the marketplace delivers: URL/v1/webhooks/marketplace."
  value       = "https://${local.host}"
}

output "settings" {
  description = "The programs' settings, for commands on a machine in this network."
  value       = local.settings
}

output "secrets" {
  description = "File below the state directory -> the secret that holds it."
  value       = local.secret_ids
}
