export { cohenKappa, matthewsCorrcoef } from './agreement.js'

export { BleuScore, corpusBleu, sentenceBleu } from './bleu.js'
export { ChrfScore, corpusChrf } from './chrf.js'
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
export { CharacterErrorRate, cer, characterErrors, WordErrorRate, wer, wordErrors } from './error-rate.js'

export { MeteorMetric, meteor } from './meteor.js'
export { Metric, type MetricDefinition } from './metric.js'
export { Perplexity, perplexity } from './perplexity.js'
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
