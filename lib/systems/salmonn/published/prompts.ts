import { SPEECH_BLOCK } from '../data/prompt.js'
import { SalmonnPrompts } from '../data/prompt-table.js'

const said = (...texts: string[]) => texts.map((text) => `${SPEECH_BLOCK} ${text}`)

/** Default training prompts, with voxtorch's own texts for the published tasks. */
export const SALMONN_TRAIN_PROMPTS = new SalmonnPrompts(
  {
    asr: said(
      'Write down what the speaker says.',
      'What words are spoken here?',
      'Give a transcript of this recording.',
      'Turn the speech into text.',
    ),
    asr_zh: said('请写出这段录音里说的话。', '把这段语音转成文字。'),
    asr_de: said('Schreibe auf, was gesagt wird.', 'Gib den Wortlaut der Aufnahme wieder.'),
    translation_ec: said('Translate the speech into Chinese.', '把这段英语语音翻译成中文。'),
    audiocaption: said('Describe what can be heard.', 'Say in one sentence what happens in this recording.'),
    QA: said('{}'),
    inference_QA: said('{}'),
    gender_QA: said('{}'),
    gender_recognition: said('Is the speaker a man or a woman?', 'Name the gender of the voice.'),
    phone_recognition: said('Give the phonemes of the speech.', 'Which phonemes are spoken?'),
    speech_separation: said('Several people talk at once. Write down what each says.'),
    emotion_recognition: said(
      'Which emotion does the voice show? Answer with one word.',
      "Name the speaker's emotion.",
    ),
    music_description: said('Describe this piece of music.', 'What kind of music is this, and how is it played?'),
    speaker_verification: said('Do both parts come from the same speaker? Answer yes or no.'),
    audio_story_telling: said('Tell a story that fits these sounds.'), // language: prompt
    speaker_diarization_asr: said('Write down who says what, speaker by speaker.'),
    task1_emotional_trajectory: said('{}'),
    task2_emotional_reasoning: said('{}'),
    task3_empathy: said('{}'),
  },
  'the default prompts',
)

/** Default test prompts, one for each task. */
export const SALMONN_TEST_PROMPTS = new SalmonnPrompts(
  {
    ...Object.fromEntries(SALMONN_TRAIN_PROMPTS.tasks.map((task) => [task, SALMONN_TRAIN_PROMPTS.pick(task)])),
    speech_query: said('Answer the question that is asked in the recording.')[0] as string, // language: prompt
    slot_filling: said('{}')[0] as string,
    keywords: said('List the key words of the speech.')[0] as string,
    lyrics_recognition: said('Write down the words of the song.')[0] as string,
    translation_en2ja: said('Translate the speech into Japanese.')[0] as string,
    translation_en2de: said('Translate the speech into German.')[0] as string,
  },
  'the default test prompts',
)
