# The table of a store, for Terraform: the table that `create=true` creates, with variables.
# `tests/definition.rs` compares the two.

variable "table_name" {
  description = "The name of the table, as in dynamodb://<table>."
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

  # Only snapshots expire, and only if the store has a `snapshot_ttl`.
  ttl {
    attribute_name = "expires"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  deletion_protection_enabled = var.deletion_protection

  # Keep the events when the resource is removed from the plan.
  lifecycle {
    prevent_destroy = true
  }
}

output "table_arn" {
  description = "The ARN of the table, for the policies."
  value       = aws_dynamodb_table.annals.arn
}
