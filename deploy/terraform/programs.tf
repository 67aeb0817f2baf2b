# One Cloud Run service that answers, and a worker pool for each program that works.
locals {
  host   = "ggen-ingress-${data.google_project.this.number}.${var.region}.run.app"
  memory = google_memorystore_instance.this.endpoints[0].connections[0].psc_auto_connection[0]
  redis  = "redis://${local.memory.ip_address}:${local.memory.port}"

  settings = {
    GGEN_DOCUMENTS_URL        = "firestore://${var.project}/${google_firestore_database.this.name}"
    GGEN_OBJECTS_URL          = "gs://${google_storage_bucket.this["objects"].name}"
    GGEN_SPOOL_URL            = "gs://${google_storage_bucket.this["spool"].name}"
    GGEN_ARCHIVE_URL          = "gs://${google_storage_bucket.this["archives"].name}"
    GGEN_SIGNALS_URL          = "pubsub://${var.project}"
    GGEN_BROKER_URL           = "${local.redis}/0"
    GGEN_MEMORY_URL           = "${local.redis}/1"
    GGEN_PUSH_URL             = "https://${local.host}/v1/pubsub/signals"
    GGEN_PUSH_SERVICE_ACCOUNT = google_service_account.push.email
    GGEN_LEDGER_ORIGIN        = var.ledger_origin
    GGEN_DEFAULT_REGION       = var.region
  }
  # A secret is mounted as a folder of its own; the programs read one folder of files.
  start = join(" && ", [
    "mkdir -p /state/run /state/secrets/tenants /state/keys",
    "{ test ! -d /mnt/secrets || ln -s /mnt/secrets/*/* /state/secrets/; }",
    "{ test ! -d /mnt/keys || ln -s /mnt/keys/*/* /state/keys/; }",
    "exec ggen run",
  ])
  mounted = {
    for program in local.programs : program => {
      for file, programs in local.files : file => local.secret_ids[file] if contains(programs, program)
    }
  }
  workers = {
    actions  = { count = var.actions_workers, memory = "2Gi" }
    runbooks = { count = 1, memory = "1Gi" }
    health   = { count = 1, memory = "1Gi" }
    beat     = { count = 1, memory = "512Mi" }
  }
}

# The ingress checks every caller itself: a marketplace by its signature, Pub/Sub by its token. Cloud
# Run's own check would take the token's signature away.
resource "google_cloud_run_v2_service" "ingress" {
  count                = var.image == "" ? 0 : 1
  name                 = "ggen-ingress"
  location             = var.region
  ingress              = "INGRESS_TRAFFIC_ALL"
  invoker_iam_disabled = true
  deletion_protection  = false

  template {
    service_account       = google_service_account.program["ingress"].email
    execution_environment = "EXECUTION_ENVIRONMENT_GEN2"
    timeout               = "60s"

    scaling {
      min_instance_count = 1
      max_instance_count = var.most_ingresses
    }

    containers {
      image   = var.image
      command = ["sh", "-c"]
      args    = ["${local.start} ingress"]

      ports {
        container_port = 8080
      }

      resources {
        limits            = { cpu = "1", memory = "1Gi" }
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge(local.settings, { GGEN_HTTP_HOST = "0.0.0.0", GGEN_TRUSTED_PROXIES = "1" })
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "volume_mounts" {
        for_each = local.mounted["ingress"]
        content {
          name       = volume_mounts.value
          mount_path = "/mnt/${dirname(volume_mounts.key)}/${volume_mounts.value}"
        }
      }

      startup_probe {
        http_get {
          path = "/healthz"
          port = 8080
        }
      }
    }

    dynamic "volumes" {
      for_each = local.mounted["ingress"]
      content {
        name = volumes.value

        secret {
          secret       = volumes.value
          default_mode = 292 # 0444: the files belong to root, the program does not run as root

          items {
            path    = basename(volumes.key)
            version = "latest"
          }
        }
      }
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"

      network_interfaces {
        network    = google_compute_network.this.id
        subnetwork = google_compute_subnetwork.this.id
      }
    }
  }

  depends_on = [google_secret_manager_secret_iam_member.this]
}

resource "google_cloud_run_v2_worker_pool" "this" {
  for_each            = { for name, size in local.workers : name => size if var.image != "" }
  name                = "ggen-${each.key}"
  location            = var.region
  deletion_protection = false

  scaling {
    scaling_mode          = "MANUAL"
    manual_instance_count = each.value.count
  }

  template {
    service_account = google_service_account.program[each.key].email

    containers {
      image   = var.image
      command = ["sh", "-c"]
      args    = ["${local.start} ${each.key}"]

      resources {
        limits = { cpu = "1", memory = each.value.memory }
      }

      dynamic "env" {
        for_each = local.settings
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "volume_mounts" {
        for_each = local.mounted[each.key]
        content {
          name       = volume_mounts.value
          mount_path = "/mnt/${dirname(volume_mounts.key)}/${volume_mounts.value}"
        }
      }
    }

    dynamic "volumes" {
      for_each = local.mounted[each.key]
      content {
        name = volumes.value

        secret {
          secret       = volumes.value
          default_mode = 292

          items {
            path    = basename(volumes.key)
            version = "latest"
          }
        }
      }
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"

      network_interfaces {
        network    = google_compute_network.this.id
        subnetwork = google_compute_subnetwork.this.id
      }
    }
  }

  depends_on = [google_secret_manager_secret_iam_member.this]
}
