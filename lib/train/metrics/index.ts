export { cohenKappa, matthewsCorrcoef } from './agreement.js'

export { BleuMetric, corpusBleu, sentenceBleu } from './bleu.js'
export { ChrfMetric, corpusChrf } from './chrf.js'
export {
  accuracy,
  type ConfusionMatrix,
  confusionMatrix,
  f1Score,
  precision,
  precisionRecallF1,
  recall,
  unweightedAverageRecall,
} from './classification.js'
export { ClassificationMetric } from './classification-metric.js'
export { CharacterErrorRateMetric, cer, characterErrors, WordErrorRateMetric, wer, wordErrors } from './error-rate.js'

export { MeteorMetric, meteor } from './meteor.js'
export { Metric, type MetricDefinition } from './metric.js'
export { MeanAbsolutePercentageErrorMetric, meanAbsolutePercentageError } from './percentage-error.js'
export { PerplexityMetric, perplexity } from './perplexity.js'
export {
  concordance,
  meanAbsoluteError,
  meanSquaredError,
  pearson,
  RegressionMetric,
  r2Score,
  rootMeanSquaredError,
  SpearmanMetric,
  spearman,
} from './regression.js'
export { retrievalMetrics } from './retrieval.js'
export { RocAucMetric, rocAuc, rocAucMultiClass } from './roc.js'
export { RougeMetric, rouge } from './rouge.js'
