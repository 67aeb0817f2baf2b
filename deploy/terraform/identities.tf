# Who may do what: one account a program, each with the calls that its code makes and no others.
locals {
  programs = toset(["ingress", "actions", "runbooks", "health", "beat"])

  bucket_roles = {
    "objects ingress"   = "roles/storage.objectUser"
    "objects actions"   = "roles/storage.objectViewer"
    "objects runbooks"  = "roles/storage.objectUser"
    "objects health"    = "roles/storage.objectUser"
    "spool actions"     = "roles/storage.objectUser"
    "spool runbooks"    = "roles/storage.objectUser"
    "spool health"      = "roles/storage.objectUser"
    "archives runbooks" = "roles/storage.objectUser"
  }
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_service_account" "program" {
  for_each     = local.programs
  account_id   = "ggen-${each.key}"
  display_name = "ggen ${each.key}"
  depends_on   = [google_project_service.this]
}

# Pub/Sub signs each push with this account's token. It has no role.
resource "google_service_account" "push" {
  account_id   = "ggen-push"
  display_name = "ggen pushes of signals"
  depends_on   = [google_project_service.this]
}

resource "google_service_account_iam_member" "push" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.program["runbooks"].member
}

resource "google_project_iam_custom_role" "documents" {
  role_id = "ggenDocuments"
  title   = "ggen documents"
  permissions = [
    "datastore.entities.create", "datastore.entities.delete", "datastore.entities.get",
    "datastore.entities.list", "datastore.entities.update",
  ]
  depends_on = [google_project_service.this]
}

resource "google_project_iam_member" "documents" {
  for_each = setsubtract(local.programs, ["beat"])
  project  = var.project
  role     = google_project_iam_custom_role.documents.id
  member   = google_service_account.program[each.key].member

  condition {
    title      = "this database"
    expression = "resource.name == \"projects/${var.project}/databases/${google_firestore_database.this.name}\""
  }
}

# Topics of tenants are made while the system runs, so that the right is the project's.
resource "google_project_iam_custom_role" "signals" {
  role_id = "ggenSignals"
  title   = "ggen topics"
  permissions = [
    "pubsub.topics.attachSubscription", "pubsub.topics.create", "pubsub.topics.delete",
    "pubsub.topics.get", "pubsub.topics.publish", "pubsub.topics.update",
    "pubsub.subscriptions.consume", "pubsub.subscriptions.create", "pubsub.subscriptions.delete",
    "pubsub.subscriptions.get", "pubsub.subscriptions.update",
  ]
  depends_on = [google_project_service.this]
}

resource "google_project_iam_member" "signals" {
  project = var.project
  role    = google_project_iam_custom_role.signals.id
  member  = google_service_account.program["runbooks"].member
}

resource "google_project_iam_custom_role" "lag" {
  role_id     = "ggenLag"
  title       = "ggen lag"
  permissions = ["monitoring.timeSeries.list"]
  depends_on  = [google_project_service.this]
}

resource "google_project_iam_member" "lag" {
  for_each = toset(["runbooks", "health"])
  project  = var.project
  role     = google_project_iam_custom_role.lag.id
  member   = google_service_account.program[each.key].member
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.bucket_roles
  bucket   = google_storage_bucket.this[split(" ", each.key)[0]].name
  role     = each.value
  member   = google_service_account.program[split(" ", each.key)[1]].member
}

# The program compares both with what it would make itself: adapters/gcp/pubsub.py.
resource "google_pubsub_topic" "dead_letters" {
  name       = "ggen.dead-letters"
  labels     = { managed-by = "ggen-governor" }
  depends_on = [google_project_service.this]
}

resource "google_pubsub_subscription" "dead_letters" {
  name                       = "ggen.dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  labels                     = { managed-by = "ggen-governor" }
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic_iam_member" "dead_letters" {
  topic  = google_pubsub_topic.dead_letters.name
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_project_iam_member" "pubsub_agent" {
  project = var.project
  role    = "roles/pubsub.subscriber"
  member  = local.pubsub_agent
}
