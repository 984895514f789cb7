#pragma once

#include "accounts/accounts.h"
#include "algorithms/algorithms.h"
#include "datasets/datasets.h"
#include "engines/engine_set.h"
#include "files/files.h"
#include "images/images.h"
#include "jobs/draft.h"
#include "models/models.h"
#include "quotas/quotas.h"

namespace lathe::jobs {

/// The features that jobs stand on. All must outlive whoever is given this.
struct Platform {
  db::Database& db;
  accounts::Accounts& accounts;
  accounts::Audit& audit;
  quotas::Quotas& quotas;
  files::Files& files;
  datasets::Datasets& datasets;
  images::Images& images;
  models::Models& models;
  algorithms::Algorithms& algorithms;
  engines::EngineSet& engines;
  IdSource& ids;
  const Clock& clock;
};

/// What is to be written down of a new job.
struct NewJob {
  Job job;
  quotas::ResourceGroup group;
};

/// Looks up everything a draft names and checks everything that can be known now: what is wrong is told at
/// once, before anything is written. unsatisfiable: right in itself, but it can never run here
/// (ExceedsMaxQuota, ExceedsGroup).
Result<NewJob> build_job(const Platform& platform, const http::Identity& caller, std::string id, Draft draft,
                         Problems problems);

}  // namespace lathe::jobs
