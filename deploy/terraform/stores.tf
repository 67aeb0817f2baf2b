# Truth, objects, Memory.
locals {
  indexes = jsondecode(file("${path.module}/../../config/firestore.indexes.json"))
}

resource "google_firestore_database" "this" {
  name                              = "ggen"
  location_id                       = var.region
  type                              = "FIRESTORE_NATIVE"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = "DELETE_PROTECTION_ENABLED"
  depends_on                        = [google_project_service.this]
}

resource "google_firestore_index" "this" {
  for_each = {
    for index in local.indexes.indexes : join(" ", concat(
      [index.collectionGroup, index.queryScope],
      [for field in index.fields : "${field.fieldPath}-${field.order}"],
    )) => index
  }
  database    = google_firestore_database.this.name
  collection  = each.value.collectionGroup
  query_scope = each.value.queryScope

  dynamic "fields" {
    for_each = each.value.fields
    content {
      field_path = fields.value.fieldPath
      order      = fields.value.order
    }
  }
}

resource "google_firestore_field" "this" {
  for_each   = { for field in local.indexes.fieldOverrides : "${field.collectionGroup}/${field.fieldPath}" => field }
  database   = google_firestore_database.this.name
  collection = each.value.collectionGroup
  field      = each.value.fieldPath

  # An empty block: no index of its own.
  index_config {
    dynamic "indexes" {
      for_each = each.value.indexes
      content {
        order       = indexes.value.order
        query_scope = indexes.value.queryScope
      }
    }
  }
}

resource "google_storage_bucket" "this" {
  for_each                    = toset(["objects", "spool", "archives"])
  name                        = "${var.project}-ggen-${each.key}"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  depends_on                  = [google_project_service.this]

  versioning {
    enabled = each.key != "spool"
  }
}

resource "google_compute_network" "this" {
  name                    = "ggen"
  auto_create_subnetworks = false
  depends_on              = [google_project_service.this]
}

resource "google_compute_subnetwork" "this" {
  name                     = "ggen"
  network                  = google_compute_network.this.id
  region                   = var.region
  ip_cidr_range            = "10.10.0.0/24"
  private_ip_google_access = true
}

resource "google_network_connectivity_service_connection_policy" "this" {
  name          = "ggen"
  location      = var.region
  network       = google_compute_network.this.id
  service_class = "gcp-memorystore"

  psc_config {
    subnetworks = [google_compute_subnetwork.this.id]
  }
}

resource "google_memorystore_instance" "this" {
  instance_id        = "ggen"
  location           = var.region
  mode               = "CLUSTER_DISABLED"
  shard_count        = 1
  replica_count      = 1
  node_type          = "STANDARD_SMALL"
  engine_version     = "VALKEY_8_0"
  engine_configs     = { maxmemory-policy = "noeviction" }
  authorization_mode = "AUTH_DISABLED"
  # The network is this project's own; see docs/threat-model.md before you change that.
  transit_encryption_mode = "TRANSIT_ENCRYPTION_DISABLED"

  desired_auto_created_endpoints {
    network    = google_compute_network.this.id
    project_id = var.project
  }

  persistence_config {
    mode = "AOF"

    aof_config {
      append_fsync = "EVERY_SEC"
    }
  }

  depends_on = [google_network_connectivity_service_connection_policy.this]
}

resource "google_artifact_registry_repository" "this" {
  repository_id = "ggen"
  location      = var.region
  format        = "DOCKER"
  depends_on    = [google_project_service.this]
}
