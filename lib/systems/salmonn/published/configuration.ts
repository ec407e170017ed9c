import { snakeCase } from '../../../base/words.js'
import type { SalmonnConfiguration } from '../configuration/configuration.js'
import { all, into, type Rule, type Sections } from '../configuration/rules.js'
import type { SalmonnPart } from '../network/adapter.js'
import { SALMONN_STAGES } from '../training/parts.js'

const ignored = (reason: string) => ({ ignored: reason })
/** Default trained parts: Q-Former, projection and LoRA. */
const DEFAULT_PARTS = SALMONN_STAGES[2]
const LAUNCH = 'voxtorch launch tells each process its rank'
const UNREAD = 'the original does not use it'

/** Return the rule of a part's `freeze_…` key or, for LoRA, its own key. */
const trains = (part: SalmonnPart, trainingValue: boolean): Rule => ({
  type: 'boolean',
  set: (to: SalmonnConfiguration, value: boolean) => {
    if (part === 'lora') to.model.lora = value
    const parts = new Set((to.stage as readonly SalmonnPart[] | undefined) ?? DEFAULT_PARTS)
    if (value === trainingValue) parts.add(part)
    else parts.delete(part)
    to.stage = [...parts]
  },
})

const named = (name: 'outputDir' | 'device'): Rule => ({
  type: 'string',
  set: (to: SalmonnConfiguration, value: string) => {
    if (value !== '') to[name] = value
  },
})

const filled = (name: 'llm' | 'whisper' | 'adapter' | 'projection'): Rule => ({
  type: 'string',
  set: (to: SalmonnConfiguration, value: string) => {
    if (value !== '') to.model[name] = value
  },
})

/** Rule for BEATs. An empty path means no BEATs, as in the original, as does 'none'. */
const beatsPath: Rule = {
  type: 'string',
  set: (to: SalmonnConfiguration, value: string) => {
    to.model.beats = value === '' || value === 'none' ? null : value
  },
}

const beta = (index: 0 | 1): Rule => ({
  type: 'number',
  set: (to: SalmonnConfiguration, value: number) => {
    const betas: [number, number] = to.recipe.betas ?? [0.9, 0.999]
    betas[index] = value
    to.recipe.betas = betas
  },
})

const optims: Record<string, Rule> = {
  max_epoch: into('recipe', 'epochs'),
  warmup_steps: into('recipe', 'warmupSteps'),
  warmup_start_lr: into('recipe', 'warmupStartLearningRate'),
  init_lr: into('recipe', 'learningRate'),
  min_lr: into('recipe', 'minLearningRate'),
  weight_decay: into('recipe', 'weightDecay'),
  beta1: beta(0),
  beta2: beta(1),
  eps: into('recipe', 'eps'),
}

const loading: Sections = {
  batch_size_train: into('recipe', 'batchSize'),
  batch_size_eval: into('recipe', 'evalBatchSize'),
  num_workers: ignored('audio is read by native threads'),
}

/** Keys of the published `config.yaml`, `decode_config.yaml` and `finetune.yaml`. */
export const PUBLISHED_SECTIONS: Sections = {
  model: {
    llama_path: filled('llm'),
    whisper_path: filled('whisper'),
    beats_path: beatsPath,
    ckpt: filled('adapter'),
    speech_llama_proj_model: filled('projection'),
    freeze_whisper: trains('whisper', false),
    freeze_beats: trains('beats', false),
    freeze_speech_QFormer: trains('qformer', false),
    freeze_speech_llama_proj: trains('projection', false),
    lora: trains('lora', true),
    use_speech_Qformer: { type: [true], set: () => {} },
    window_level_Qformer: { type: [true], set: () => {} },
    num_speech_query_token: into('model', 'queries'),
    second_per_window: into('model', 'secondsPerWindow'),
    second_stride: into('model', 'secondsPerStride'),
    lora_rank: into('model', 'loraRank'),
    lora_alpha: into('model', 'loraAlpha'),
    lora_dropout: into('model', 'loraDropout'),
    multi_prompt: ignored('each sample has a prompt of its task'),
    prompt_path: into('data', 'prompts'),
    test_prompt_path: into('data', 'testPrompts'),
    prompt_template: into('data', 'template'),
    max_txt_len: into('model', 'maxTextLength'),
    end_sym: into('model', 'endSymbol'),
    low_resource: into('model', 'loadIn8bit'),
    device_8bit: ignored('the key device sets it'),
  },
  datasets: {
    train_ann_path: into('data', 'train'),
    valid_ann_path: into('data', 'valid'),
    test_ann_path: into('data', 'test'),
    whisper_path: ignored('the feature settings are built in'),
    ...loading,
  },
  run: {
    ...loading,
    ...optims,
    optims,
    seed: into('recipe', 'seed'),
    output_dir: named('outputDir'),
    device: named('device'),
    evaluate: into('run', 'evaluateOnly'),
    log_freq: into('recipe', 'logSteps'),
    epoch_based: {
      type: 'boolean',
      set: (to, value: boolean) => {
        if (value) to.recipe.iterationsPerEpoch = null
      },
    },
    iters_per_epoch: {
      type: 'integer',
      set: (to, value: number) => {
        // With epochs of the data, the data sets their length.
        if (to.recipe.iterationsPerEpoch !== null) to.recipe.iterationsPerEpoch = value
      },
    },
    accum_grad_iters: into('recipe', 'accumulation'),
    max_grad_norm: into('recipe', 'maxGradNorm'),
    amp: into('recipe', 'amp'),
    use_distributed: ignored(LAUNCH),
    world_size: ignored(LAUNCH),
    dist_url: ignored(LAUNCH),
    dist_backend: ignored(LAUNCH),
    gpu: ignored(LAUNCH),
    rank: ignored(LAUNCH),
  },
  generate: all('generation', snakeCase),
  training: ignored(UNREAD),
  evaluation: ignored(UNREAD),
}
