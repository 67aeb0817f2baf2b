variable "project" {
  type        = string
  description = "Id of a Google Cloud project that has billing."
}

variable "region" {
  type        = string
  description = "Where everything lies. It cannot be changed afterwards."
  default     = "us-central1"
}

variable "ledger_origin" {
  type        = string
  description = "A domain name you own. Every checkpoint names it: set it before the first customer, never change it."
}

variable "signing_key" {
  type        = string
  description = "Id of the signing key that ggen prepare made: ggen keys list."
}

variable "image" {
  type        = string
  description = "The image, by its digest. Empty: everything but the programs is made."
  default     = ""
}

variable "actions_workers" {
  type        = number
  description = "Workers of actions, of eight children each."
  default     = 1
}

variable "most_ingresses" {
  type    = number
  default = 4
}
