"""LLaVA-OneVision-Data: parquet configs of {id, image, conversations, data_source}.

`image` is one Image (null for text-only configs such as `magpie_pro(l3_80b_mt)`); the config
names are those of the published mixture tables, whose row counts are recorded below. Several
configs are re-formatted Cauldron subsets: list them beside `cauldron` and duplicates will tell.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.llava import record
from pipelines.sources.sample import Sample, source

SUBSETS: dict[str, int] = {
    "CLEVR-Math(MathV360K)": 5_280,
    "FigureQA(MathV360K)": 17_587,
    "GEOS(MathV360K)": 498,
    "GeoQA+(MathV360K)": 17_162,
    "Geometry3K(MathV360K)": 9_724,
    "IconQA(MathV360K)": 22_589,
    "MapQA(MathV360K)": 5_225,
    "PMC-VQA(MathV360K)": 35_948,
    "Super-CLEVR(MathV360K)": 8_642,
    "TabMWP(MathV360K)": 22_452,
    "UniGeo(MathV360K)": 11_949,
    "VisualWebInstruct(filtered)": 263_584,
    "VizWiz(MathV360K)": 6_604,
    "ai2d(cauldron,llava_format)": 2_429,
    "ai2d(gpt4v)": 4_864,
    "ai2d(internvl)": 12_403,
    "allava_instruct_laion4v": 49_990,
    "allava_instruct_vflan4v": 19_990,
    "aokvqa(cauldron,llava_format)": 16_534,
    "chart2text(cauldron)": 26_956,
    "chartqa(cauldron,llava_format)": 18_260,
    "chrome_writting": 8_825,
    "clevr(cauldron,llava_format)": 69_995,
    "diagram_image_to_text(cauldron)": 295,
    "dvqa(cauldron,llava_format)": 199_995,
    "figureqa(cauldron,llava_format)": 99_995,
    "geo170k(align)": 60_242,
    "geo170k(qa)": 67_823,
    "geo3k": 2_091,
    "geomverse(cauldron)": 9_298,
    "hateful_memes(cauldron,llava_format)": 8_495,
    "hitab(cauldron,llava_format)": 2_495,
    "hme100k": 74_492,
    "iam(cauldron)": 5_658,
    "iconqa(cauldron,llava_format)": 27_302,
    "iiit5k": 1_990,
    "image_textualization(filtered)": 99_573,
    "infographic(gpt4v)": 1_982,
    "infographic_vqa": 4_394,
    "infographic_vqa_llava_format": 2_113,
    "intergps(cauldron,llava_format)": 1_275,
    "k12_printing": 256_636,
    "llavar_gpt4_20k": 19_790,
    "lrv_chart": 1_776,
    "lrv_normal(filtered)": 10_490,
    "magpie_pro(l3_80b_mt)": 299_988,
    "magpie_pro(l3_80b_st)": 299_990,
    "magpie_pro(qwen2_72b_st)": 299_982,
    "mapqa(cauldron,llava_format)": 37_412,
    "mathqa": 29_827,
    "mavis_math_metagen": 87_348,
    "mavis_math_rule_geo": 99_990,
    "multihiertt(cauldron)": 7_614,
    "orand_car_a": 1_999,
    "raven(cauldron)": 41_995,
    "rendered_text(cauldron)": 9_995,
    "robut_sqa(cauldron)": 8_509,
    "robut_wikisql(cauldron)": 74_984,
    "robut_wtq(cauldron,llava_format)": 38_241,
    "scienceqa(cauldron,llava_format)": 4_971,
    "scienceqa(nona_context)": 19_208,
    "screen2words(cauldron)": 15_725,
    "sharegpt4o": 57_284,
    "sharegpt4v(coco)": 50_017,
    "sharegpt4v(knowledge)": 1_988,
    "sharegpt4v(llava)": 29_990,
    "sharegpt4v(sam)": 8_990,
    "sroie": 33_616,
    "st_vqa(cauldron,llava_format)": 17_242,
    "tabmwp(cauldron)": 22_717,
    "tallyqa(cauldron,llava_format)": 98_675,
    "textcaps": 21_942,
    "textocr(gpt4v)": 25_104,
    "tqa(cauldron,llava_format)": 27_302,
    "ureader_cap": 91_434,
    "ureader_ie": 17_322,
    "vision_flan(filtered)": 186_060,
    "vistext(cauldron)": 9_964,
    "visual7w(cauldron,llava_format)": 14_361,
    "visualmrc(cauldron)": 3_022,
    "vqarad(cauldron,llava_format)": 308,
    "vsr(cauldron,llava_format)": 2_152,
    "websight(cauldron)": 9_995,
}


@source(
    "llava_onevision",
    hub="lmms-lab/LLaVA-OneVision-Data",
    licence="Apache-2.0",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2408.03326",
    verified="columns on the card; config names and rows in the published mixture tables",
    columns=("conversations",),
    media_columns=("image",),
    subsets=SUBSETS,
)
def llava_onevision(row: Mapping[str, Any]) -> Sample:
    """A record whose image lies in the row."""
    return record(row)
