# The table of a store, for Terraform: what `create=true` creates, with the variables to be chosen.
# `tests/definition.rs` compares the two.

variable "table_name" {
  description = "The table of dynamodb://<table>."
  type        = string
  default     = "annals"
}

variable "point_in_time_recovery" {
  description = "Whether the table can be restored to any second of the last 35 days."
  type        = bool
  default     = true
}

variable "deletion_protection" {
  description = "Whether DynamoDB refuses to delete the table."
  type        = bool
  default     = true
}

resource "aws_dynamodb_table" "annals" {
  name         = var.table_name
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "pk"
  range_key    = "sk"

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "N"
  }

  # Snapshots only, and those only where `snapshot_ttl` is set.
  ttl {
    attribute_name = "expires"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  deletion_protection_enabled = var.deletion_protection

  # Events outlive the plan.
  lifecycle {
    prevent_destroy = true
  }
}

output "table_arn" {
  description = "For the policies."
  value       = aws_dynamodb_table.annals.arn
}
