# Secrets and keys are files. Terraform makes their places and never sees a value.
locals {
  signing = ["ingress", "actions", "runbooks", "health"]

  files = {
    "secrets/webhook.key"         = ["ingress"]
    "secrets/policy.key"          = ["ingress"]
    "secrets/api.token"           = ["ingress"]
    "secrets/monitoring.token"    = ["ingress"]
    "secrets/master.key"          = ["ingress", "actions", "runbooks"]
    "secrets/alert.urls"          = local.signing
    "keys/current"                = local.signing
    "keys/ring.json"              = local.signing
    "keys/${var.signing_key}.pem" = local.signing
  }
  secret_ids = { for file in keys(local.files) : file => "ggen-${replace(replace(file, "/", "-"), ".", "-")}" }

  readers = merge([
    for file, programs in local.files : { for program in programs : "${file} ${program}" => { file = file, program = program } }
  ]...)
}

resource "google_secret_manager_secret" "this" {
  for_each  = local.secret_ids
  secret_id = each.value

  replication {
    auto {}
  }

  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_iam_member" "this" {
  for_each  = local.readers
  secret_id = google_secret_manager_secret.this[each.value.file].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.program[each.value.program].member
}
