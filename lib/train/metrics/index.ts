export { cohenKappa, type KappaOptions, matthewsCorrcoef } from './agreement.js'
export type { AlignmentChunk } from './alignment.js'
export { type Bleu, type BleuOptions, BleuScore, corpusBleu, sentenceBleu } from './bleu.js'
export { type ChrfOptions, ChrfScore, corpusChrf } from './chrf.js'
export {
  type Average,
  accuracy,
  type ConfusionMatrix,
  confusionMatrix,
  f1Score,
  precision,
  precisionRecallF1,
  recall,
  type Score,
  type ScoreOptions,
  type Scores,
  unweightedAverageRecall,
} from './classification.js'
export { type Classification, ClassificationMetric } from './classification-metric.js'
export {
  CharacterErrorRate,
  type CharacterErrors,
  cer,
  characterErrors,
  type EditCounts,
  type ErrorRate,
  WordErrorRate,
  type WordErrors,
  wer,
  wordErrors,
} from './error-rate.js'
export type { Label, Labels } from './labels.js'
export { METEOR_VARIANT, type Meteor, MeteorMetric, type MeteorOptions, meteor } from './meteor.js'
export { Metric, type MetricDefinition, type MetricState } from './metric.js'
export { Perplexity, perplexity } from './perplexity.js'
export {
  concordance,
  meanAbsoluteError,
  meanSquaredError,
  pearson,
  type Regression,
  RegressionMetric,
  r2Score,
  rootMeanSquaredError,
  SpearmanMetric,
  spearman,
} from './regression.js'
export { type RetrievalMetrics, type RetrievalOptions, retrievalMetrics } from './retrieval.js'
export { type ClassScores, RocAucMetric, type RocAucOptions, rocAuc, rocAucMultiClass } from './roc.js'
export { type Rouge, RougeMetric, type RougeScore, rouge } from './rouge.js'
export type { Values } from './values.js'
