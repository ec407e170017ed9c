export {
  allGather,
  allGatherObject,
  allReduce,
  barrier,
  broadcast,
  type ReduceOp,
  reduceMetrics,
} from './collectives.js'
export { type DataParallelOptions, DistributedDataParallel } from './data-parallel.js'
export {
  destroyProcessGroup,
  getLocalRank,
  getRank,
  getWorldSize,
  initProcessGroup,
  isInitialized,
  isMainProcess,
  type ProcessGroupOptions,
} from './process-group.js'
export { DistributedSampler, type DistributedSamplerOptions } from './sampler.js'
export { SyncBatchNorm } from './sync-batch-norm.js'
export { ZeroRedundancyOptimizer } from './zero.js'
