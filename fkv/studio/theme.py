"""The page's look: Gradio's theme variables, light and dark, with local fonts only. The stage's own style is in
assets."""

from __future__ import annotations

from gradio.themes import Base, Color, Size
from gradio.themes.utils.fonts import LocalFont

INK = Color(  # type: ignore[misc]  # how many shades there are, no type says
    *"#f6f7f9 #eceef2 #dde1e7 #c3c9d2 #98a1ae #6a7482 #4d5663 #38404b #22282f #161a1f #0e1114".split(), name="ink"
)
BLUE = Color(  # type: ignore[misc]
    *"#eaf4fb #d3e8f6 #a9d3ee #78bae4 #56b4e9 #1f8ecb #0072b2 #005f95 #004d79 #003b5e #002a44".split(), name="blue"
)
ROUND = Size("3px", "4px", "6px", "8px", "10px", "12px", "14px", name="soft")


def theme() -> Base:
    """Quiet surfaces, one blue for what can be pressed; colour is left to the pictures and the cache."""
    sans = (LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif")
    mono = (LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace")
    return Base(
        primary_hue=BLUE, secondary_hue=BLUE, neutral_hue=INK, radius_size=ROUND, font=sans, font_mono=mono
    ).set(
        body_background_fill="#f4f5f7",
        body_background_fill_dark="#0e1114",
        body_text_color="#161a1f",
        body_text_color_dark="#edf0f4",
        body_text_color_subdued="#535d6a",
        body_text_color_subdued_dark="#a3adba",
        input_border_width="1px",
        button_border_width="1px",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="#b4bcc7",
        checkbox_label_border_color_dark="#48525f",
        checkbox_border_color="#6a7482",
        checkbox_border_color_dark="#98a1ae",
        button_primary_border_color="#0072b2",
        button_primary_border_color_dark="#56b4e9",
        block_background_fill="#ffffff",
        block_background_fill_dark="#161a1f",
        block_border_color="#dde1e7",
        block_border_color_dark="#2b323b",
        block_border_width="1px",
        block_shadow="none",
        block_label_text_color="#4d5663",
        block_label_text_color_dark="#a3adba",
        block_title_text_color="#38404b",
        block_title_text_color_dark="#c3c9d2",
        block_info_text_color="#535d6a",
        block_info_text_color_dark="#a3adba",
        input_background_fill="#ffffff",
        input_background_fill_dark="#0e1114",
        input_border_color="#b4bcc7",
        input_border_color_dark="#48525f",
        input_border_color_focus="#0072b2",
        input_border_color_focus_dark="#56b4e9",
        input_placeholder_color="#6a7482",
        input_placeholder_color_dark="#98a1ae",
        button_primary_background_fill="#0072b2",
        button_primary_background_fill_dark="#56b4e9",
        button_primary_background_fill_hover="#005f95",
        button_primary_background_fill_hover_dark="#78c6f0",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#0e1114",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#22282f",
        button_secondary_background_fill_hover="#eceef2",
        button_secondary_background_fill_hover_dark="#2f3741",
        button_secondary_border_color="#b4bcc7",
        button_secondary_border_color_dark="#48525f",
        button_secondary_text_color="#22282f",
        button_secondary_text_color_dark="#edf0f4",
        link_text_color="#005f95",
        link_text_color_dark="#78bae4",
    )
