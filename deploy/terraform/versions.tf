# The whole of ggen governor in one project: docs/quickstart-google-cloud.md goes through it.
terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 9.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "this" {
  for_each = toset([
    "artifactregistry", "compute", "firestore", "iam", "memorystore", "monitoring",
    "networkconnectivity", "pubsub", "run", "secretmanager", "serviceconsumermanagement", "storage",
  ])
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}
