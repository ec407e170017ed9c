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
  initProcessGroup,
  isInitialized,
  isMainProcess,
  localRank,
  type ProcessGroupOptions,
  rank,
  worldSize,
} from './process-group.js'
export { DistributedSampler, type DistributedSamplerOptions } from './sampler.js'
export { ZeroRedundancyOptimizer } from './zero.js'
